<?php

namespace App\Models;

class Invoice extends CompanyRecord
{
}
