<?php

namespace App\Models;

class Customer extends CompanyRecord
{
}
