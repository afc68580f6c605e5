<?php

namespace App\Models;

class Export extends CompanyRecord
{
}
